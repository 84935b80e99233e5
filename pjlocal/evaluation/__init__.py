"""Does it align?  Sets of prompts answered by several systems, scored, compared, and told with their uncertainty."""
