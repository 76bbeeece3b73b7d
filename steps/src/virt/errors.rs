//! What a failure of `virsh` means, and the way out. It ends with 1 for everything: only stderr tells errors apart. Texts
//! as libvirt 9.0.0 prints them.

use runback_core::step::{Class, StepError};
use runback_core::target::{Command, Exit};

use super::virsh::Connection;

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    NoDomain,
    NoNetwork,
    NoPool,
    NoSnapshot,
    AlreadyActive,
    /// It does not run, or is not paused.
    NotSo,
    /// The name has another UUID.
    Exists,
    ManagedSave,
    Snapshots,
    Nvram,
    Vsock,
    NoDevice,
    NoKvm,
    NoDisk,
    DiskInUse,
    NetworkDown,
    Unreachable,
    Denied,
    Other,
}

/// Text of stderr → what it means. The first that fits.
const TEXTS: &[(&str, Why)] = &[
    ("failed to connect to the hypervisor", Why::Unreachable),
    ("authentication failed", Why::Denied),
    ("access denied", Why::Denied),
    ("failed to get domain", Why::NoDomain),
    ("Domain not found", Why::NoDomain),
    ("failed to get network", Why::NoNetwork),
    ("Network not found", Why::NoNetwork),
    ("failed to get pool", Why::NoPool),
    ("Storage pool not found", Why::NoPool),
    ("no domain snapshot with matching name", Why::NoSnapshot),
    ("Domain snapshot not found", Why::NoSnapshot),
    ("already exists with uuid", Why::Exists),
    ("is already active", Why::AlreadyActive),
    ("already running", Why::AlreadyActive),
    ("managed save image exists", Why::ManagedSave),
    ("cannot delete inactive domain with", Why::Snapshots),
    ("cannot undefine domain with nvram", Why::Nvram),
    ("vhost-vsock", Why::Vsock),
    ("Cannot get interface MTU on", Why::NoDevice),
    ("type=kvm", Why::NoKvm),
    ("accel 'kvm' is not supported", Why::NoKvm),
    ("Could not access KVM", Why::NoKvm),
    ("failed to initialize kvm", Why::NoKvm),
    ("Cannot access storage file", Why::NoDisk),
    ("Failed to get \"write\" lock", Why::DiskInUse),
    ("Failed to get shared \"write\" lock", Why::DiskInUse),
    ("is not active", Why::NetworkDown),
    ("is not running", Why::NotSo),
    ("not running", Why::NotSo),
    ("not paused", Why::NotSo),
];

pub(crate) fn why(exit: &Exit) -> Why {
    let stderr = exit.stderr_text();
    TEXTS.iter().find(|(text, _)| stderr.contains(text)).map_or(Why::Other, |(_, why)| *why)
}

/// The error of a command that ran and failed. `what` is the domain, network, pool or host that it was about.
pub(crate) fn of_exit(command: &Command, exit: &Exit, what: &str, connection: &Connection) -> StepError {
    let (class, message, help) = match why(exit) {
        Why::NoDomain => (Class::Permanent, "there is no such domain", "see `virsh list --all`"),
        Why::NoNetwork => (Class::Permanent, "there is no such network", "see `virsh net-list --all`"),
        Why::NoPool => (Class::Permanent, "there is no such storage pool", "see `virsh pool-list --all`"),
        Why::NoSnapshot => (Class::Permanent, "there is no such snapshot", "see `virsh snapshot-list DOMAIN`"),
        Why::AlreadyActive => (Class::Conflict, "it runs already", "see `virsh list --all`"),
        Why::NotSo => {
            (Class::Conflict, "it is not in the state that this needs", "see `virsh domstate DOMAIN --reason`")
        }
        Why::Exists => (
            Class::Conflict,
            "a domain of that name is there, and is another one",
            "choose another name, or undefine that domain first; the same domain is one with the same UUID",
        ),
        Why::ManagedSave => (
            Class::Conflict,
            "it has a managed save image",
            "start it once, or drop the image: `virsh managedsave-remove DOMAIN`",
        ),
        Why::Snapshots => (Class::Conflict, "it has snapshots", "see `virsh snapshot-list DOMAIN`"),
        Why::Nvram => (Class::Conflict, "it has an NVRAM file", "undefine it with --nvram or --keep-nvram"),
        Why::Vsock => (
            Class::Permanent,
            "its definition has a vsock device, and the host has none",
            "`modprobe vhost_vsock` there, or define it with `drop: [vsock]`",
        ),
        Why::NoDevice => (
            Class::Permanent,
            "the bridge of an interface is not there",
            "make the bridge (see kvm-host-setup), or define the domain with another one under `interfaces`",
        ),
        Why::NoKvm => (
            Class::Permanent,
            "KVM does not work on this host",
            "see `runback steps virt.host_check`; without KVM the domain can only be emulated: `type: qemu`",
        ),
        Why::NoDisk => (Class::Permanent, "a disk of it is not there", "see `virsh domblklist DOMAIN`"),
        Why::DiskInUse => (Class::Conflict, "a disk of it is in use", "see what else has it open: `lsof FILE`"),
        Why::NetworkDown => (Class::Permanent, "its network is not started", "start it: `uses: virt.net`"),
        Why::Unreachable => (
            Class::Transient,
            "libvirtd cannot be reached",
            "check `uri`, and that libvirtd runs (`systemctl status libvirtd`), on the step's target",
        ),
        Why::Denied => (
            Class::Permanent,
            "libvirtd refuses this user",
            "let the user into the group libvirt on the step's target, or use root",
        ),
        Why::Other => (Class::Permanent, "", ""),
    };
    let said = said(&exit.stderr_text());
    let message = match (message, said) {
        ("", Some(line)) => format!("{what}: {line}"),
        ("", None) => format!("{what}: virsh: {}", exit.describe()),
        (known, Some(line)) => format!("{what}: {known} ({line})"),
        (known, None) => format!("{what}: {known}"),
    };
    let help = match help {
        "" => format!("libvirtd was asked at {}", connection.uri),
        help => help.to_owned(),
    };
    StepError { exit_code: exit.code, ..StepError::new(class, message).help(help).command(command.display()) }
}

/// The most telling line: libvirt's own reason is the last one.
pub(crate) fn said(stderr: &str) -> Option<String> {
    let last = stderr.lines().rev().map(str::trim).find(|l| !l.is_empty())?;
    let last = last.strip_prefix("error: ").unwrap_or(last);
    Some(last.strip_prefix("internal error: ").unwrap_or(last).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(stderr: &str) -> Exit {
        Exit { code: Some(1), stderr_tail: stderr.as_bytes().to_vec(), ..Exit::default() }
    }

    /// Recorded on libvirt 9.0.0: the test driver and QEMU.
    const RECORDED: &[(Why, &str)] = &[
        (Why::NoDomain, "error: failed to get domain 'nope'"),
        (Why::AlreadyActive, "error: Domain is already active"),
        (
            Why::Exists,
            "error: Failed to define domain from /dev/stdin\nerror: operation failed: domain 'web' already exists with uuid 9a4f3152-4b76-46dc-9974-bde0b7b1bee2",
        ),
        (Why::NotSo, "error: Failed to suspend domain 'web'\nerror: internal error: domain 'web' not running"),
        (Why::NotSo, "error: Failed to resume domain 'web'\nerror: internal error: domain 'web' not paused"),
        (
            Why::NotSo,
            "error: Failed to destroy domain 'web'\nerror: Requested operation is not valid: domain is not running",
        ),
        (
            Why::Snapshots,
            "error: Failed to undefine domain 'web'\nerror: Requested operation is not valid: cannot delete inactive domain with 1 snapshots",
        ),
        (Why::ManagedSave, "error: Refusing to undefine while domain managed save image exists"),
        (
            Why::Vsock,
            "error: Failed to start domain 'web'\nerror: unsupported configuration: unable to open vhost-vsock device",
        ),
        (
            Why::NoDevice,
            "error: Failed to start domain 'web'\nerror: Cannot get interface MTU on 'br9': No such device",
        ),
        (
            Why::NoKvm,
            "error: Failed to define domain from d.xml\nerror: invalid argument: could not get preferred machine for /usr/bin/qemu-system-x86_64 type=kvm",
        ),
        (
            Why::NoKvm,
            "error: failed to get emulator capabilities\nerror: invalid argument: the accel 'kvm' is not supported by '/usr/bin/qemu-system-x86_64' on this host",
        ),
        (
            Why::NoPool,
            "error: failed to get pool 'nope'\nerror: Storage pool not found: no storage pool with matching name 'nope'",
        ),
        (
            Why::NoNetwork,
            "error: failed to get network 'nope'\nerror: Network not found: no network with matching name 'nope'",
        ),
        (
            Why::Unreachable,
            "error: failed to connect to the hypervisor\nerror: Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory",
        ),
        (Why::Other, "error: Operation not supported: something new"),
    ];

    /// Trap: every error of virsh is exit code 1.
    #[test]
    fn one_exit_code_means_many_things() {
        for (wanted, stderr) in RECORDED {
            assert_eq!(why(&exit(stderr)), *wanted, "{stderr}");
        }
    }

    #[test]
    fn each_says_what_and_what_to_do() {
        let connection = Connection { uri: "qemu:///system".to_owned() };
        let command = Command::new(["virsh", "start", "web"]);
        for (wanted, stderr) in RECORDED {
            let error = of_exit(&command, &exit(stderr), "web", &connection);
            assert!(error.message.starts_with("web: "), "{error}");
            assert!(error.help.as_deref().is_some_and(|h| !h.is_empty()), "{wanted:?}");
            assert_eq!(error.class == Class::Transient, *wanted == Why::Unreachable, "{wanted:?}");
        }
        let error = of_exit(&command, &exit(RECORDED[3].1), "web", &connection);
        assert_eq!(error.message, "web: it is not in the state that this needs (domain 'web' not running)");
        let error = of_exit(&command, &exit(RECORDED[15].1), "web", &connection);
        assert_eq!(error.message, "web: Operation not supported: something new");
    }
}
