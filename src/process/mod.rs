//! Floor 6: the process: command line, threads, signals, exit code.
