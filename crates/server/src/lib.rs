//! The door: HTTP, authorisation, admission, the turn.
