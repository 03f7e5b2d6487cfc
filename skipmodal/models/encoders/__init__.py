"""The three encoders (paper, section 3.1 and appendix 6.1), each to one vector e an item, or to a token a place."""
