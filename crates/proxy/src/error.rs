//! What can go wrong between the rules and the kernel.

use std::io;

use crate::netlink::Refusal;

/// Why the rules of services could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// No netlink socket.
    #[error("cannot open a netlink socket ({protocol}): {source}; the kernel needs {option}")]
    Socket {
        /// The netlink family.
        protocol: &'static str,
        /// The kernel option that provides it.
        option: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The kernel refused an object.
    #[error("the kernel refused {object}: {reason}{hint}")]
    Kernel {
        /// What was to be made, changed or removed.
        object: String,
        /// The error number's meaning, and the kernel's own words where it has some.
        reason: String,
        /// What to do about it; empty or starting with "; ".
        hint: &'static str,
        /// The error number.
        errno: i32,
    },
    /// The socket failed.
    #[error("cannot exchange messages with the kernel about {object}: {source}")]
    Exchange {
        /// What it was about.
        object: String,
        /// The system's error.
        source: io::Error,
    },
    /// A mistake of ours.
    #[error(
        "deciding or writing the rules of services stopped, which is a bug: {0}; the rules in the kernel stay as they are"
    )]
    Panicked(tokio::task::JoinError),
    /// Bad options.
    #[error("{0}")]
    Options(String),
}

impl ProxyError {
    pub(crate) fn refused(refusal: Refusal) -> Self {
        let mut reason = io::Error::from_raw_os_error(refusal.errno).to_string();
        if !refusal.words.is_empty() {
            reason = format!("{reason} ({})", refusal.words);
        }
        ProxyError::Kernel { object: refusal.object, reason, hint: hint(refusal.errno), errno: refusal.errno }
    }

    /// The kernel's error number, where it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            ProxyError::Kernel { errno, .. } => Some(*errno),
            ProxyError::Socket { source, .. } | ProxyError::Exchange { source, .. } => source.raw_os_error(),
            ProxyError::Options(_) | ProxyError::Panicked(_) => None,
        }
    }
}

fn hint(errno: i32) -> &'static str {
    match errno {
        libc::EPERM | libc::EACCES => {
            "; run as root, or in a network namespace of your own user namespace (CAP_NET_ADMIN)"
        }
        libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => {
            "; a part of the kernel may be missing: CONFIG_NF_TABLES with NFT_NAT, NFT_MASQ, NFT_REJECT, NFT_NUMGEN, NFT_FIB and \
             NFT_CT (modules nft_chain_nat, nft_masq, nft_reject_ipv4, nft_numgen, nft_fib_ipv4, nft_ct), Linux 5.10 or newer"
        }
        libc::EMSGSIZE | libc::ENOBUFS => "; raise net.core.wmem_max",
        libc::EBUSY | libc::EEXIST => "; something else changed the table: it is written anew at the next change",
        _ => "",
    }
}
