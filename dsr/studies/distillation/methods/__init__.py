"""Ways to a distilled set, a file each, and the table that names them."""
