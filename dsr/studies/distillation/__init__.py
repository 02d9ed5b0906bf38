"""From a data set to a distilled set, and how good that set is."""
