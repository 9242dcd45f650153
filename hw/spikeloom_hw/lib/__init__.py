"""Gateware that would be useful in any project."""
