"""The queennode process."""
