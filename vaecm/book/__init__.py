"""What one chapter of the book alone needs: figures, small data of known truth, models of real data sets."""
