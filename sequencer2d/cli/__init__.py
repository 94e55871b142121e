"""The command line: one thin module a verb, which parses, calls the layers below, and prints."""
