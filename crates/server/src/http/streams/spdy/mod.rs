//! SPDY/3.1, the older of the two ways in which kubectl opens streams, spoken by the server only.
//!
//! No crate speaks it any more; what is needed of it is little: the client opens streams, both sides write and end them.
//! There is no flow control in what kubectl speaks (`moby/spdystream`), so there is none here.

pub mod connection;
mod dictionary;
mod frames;
