//! Step types that speak HTTP. Requests go from the machine that runback runs on, whatever the step's target is.

pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod look;
pub(crate) mod request;
pub(crate) mod shape;
#[cfg(test)]
pub(crate) mod test_server;
pub(crate) mod tls;
