"""Decisions as functions of state, event and time; nothing here touches the world."""
