"""Which process this is among how many, and the few collectives that training needs."""
