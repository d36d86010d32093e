"""The numbers of the product: ``make bench``."""
