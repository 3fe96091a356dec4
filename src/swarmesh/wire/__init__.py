"""Bytes to types and back; nothing here touches the world."""
