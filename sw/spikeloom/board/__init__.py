"""What somebody with a board in hand uses: the overlay, checks of clock and operators, text and models without further packages."""
