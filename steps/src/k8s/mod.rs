//! The family `k8s`: objects of a Kubernetes cluster through its API, without kubectl. Every step talks from the machine
//! that runback runs on, whatever its target is; nothing of it is touched before the first of them runs.

pub(crate) mod apply;
mod client;
pub(crate) mod delete;
mod error;
mod fields;
pub(crate) mod get;
mod kind;
mod manifest;
mod object;
pub(crate) mod patch;
mod readiness;
pub(crate) mod rolling_update;
pub(crate) mod rollout;
pub(crate) mod scale;
pub(crate) mod set_image;
mod show;
pub(crate) mod wait;

pub(crate) use client::Clusters;
