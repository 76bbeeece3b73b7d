//! The family `k8s`: objects of a Kubernetes cluster through its API, without kubectl. Every step talks from the machine
//! that runback runs on, whatever its target is; nothing of it is touched before the first of them runs.

pub(crate) mod apply;
mod client;
pub(crate) mod config;
pub(crate) mod cordon;
pub(crate) mod delete;
pub(crate) mod drain;
mod error;
pub(crate) mod exec;
pub(crate) mod expose;
mod fields;
pub(crate) mod get;
mod kind;
pub(crate) mod logs;
mod manifest;
mod object;
pub(crate) mod patch;
mod pods;
pub(crate) mod port_forward;
mod readiness;
pub(crate) mod rolling_update;
pub(crate) mod rollout;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod set_image;
mod show;
pub(crate) mod wait;

pub(crate) use client::Clusters;
