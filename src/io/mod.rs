//! Floor 4: sockets and what speaks over them.
