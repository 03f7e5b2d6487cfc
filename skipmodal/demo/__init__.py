"""The local web page: all six directions, to look at and listen to."""
