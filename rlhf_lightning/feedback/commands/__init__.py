"""The subcommands of `rlhf-feedback`: each module has `add_arguments(parser)` and `run(args) -> int`."""
