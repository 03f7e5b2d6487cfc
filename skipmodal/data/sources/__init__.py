"""One file per public layout, each yielding rows."""
