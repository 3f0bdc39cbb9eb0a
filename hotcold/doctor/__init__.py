"""What `hotcold doctor` looks at: checks of one host, each with a remedy, none of which changes anything."""
