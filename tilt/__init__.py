"""The command line. It stands above all other rooms: it alone knows the runner, the whole schema and the plugins."""
