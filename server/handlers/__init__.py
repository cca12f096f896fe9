"""One family of addresses per file: parse, call one service method, answer."""
