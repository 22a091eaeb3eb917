//! Holds every kernel of this machine to the reference.
