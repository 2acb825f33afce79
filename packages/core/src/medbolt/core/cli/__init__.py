"""The command line ``medbolt``: light until a subcommand runs."""
