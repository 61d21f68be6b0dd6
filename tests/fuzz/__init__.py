"""Bytes of any kind against everything that reads bytes; ``scripts/fuzz`` runs it for long."""
