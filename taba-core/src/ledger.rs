//! The Ledger: per Client, recorded = folded + dropped(where, why) + in flight.
//!
//! It is made of ordinary Tabs under the reserved prefix, so that it has the same guarantee as what it counts:
//! `taba.recorded` is written by the Client with each Batch; `taba.dropped;where=…;why=…` by whoever drops;
//! `taba.deleted` by the Server that deletes States. All are of the type [`TAB_TYPE`], one event per note, its value
//! the number of events it is about. What a Server notes about a Block, it notes in that Block's VBucket, so that the
//! note is part of the same commit: reserved Tabs can therefore have States in every VBucket.

use std::fmt;

use crate::batch::StreamId;
use crate::name::{ClientId, TabName, TabType};

/// The Tab type of the Ledger's Tabs: a Handler of numbers that keeps exact totals.
pub const TAB_TYPE: &str = "TotalsCounter";
/// Events offered to the client library, whatever became of them.
pub const RECORDED: &str = "taba.recorded";
/// Events that were folded into States which somebody then deleted.
pub const DELETED: &str = "taba.deleted";
/// Events whose time lay too far in the future and was set to their arrival; they are counted as folded as well.
pub const CLAMPED: &str = "taba.clamped";
/// The base of the Tabs that count dropped events.
pub const DROPPED: &str = "taba.dropped";

/// Where a Server keeps what the States of a VBucket and these Tabs come to for each Client, so that the Ledger need not read them. No
/// query chooses it.
pub const ACCOUNTS: &str = "taba.accounts";

/// Where an event was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Where {
    /// In the application that recorded it.
    Client = 1,
    /// In the Agent of its host.
    Agent = 2,
    /// In a Server.
    Server = 3,
}

/// Why an event was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Why {
    /// The name of the Tab breaks the rules.
    BadName = 1,
    /// No Handler is registered under the Tab's type.
    UnknownType = 2,
    /// The Tab is known under another type.
    TypeConflict = 3,
    /// The payload cannot be decoded.
    Undecodable = 4,
    /// The State is of a version that the Handler cannot read.
    UnknownVersion = 5,
    /// The value is NaN, infinite, or longer than values may be.
    BadValue = 6,
    /// A bounded place was full.
    Full = 7,
    /// The sender no longer has it: a gap in its Lane.
    Gap = 8,
    /// It was older than may still be sent.
    Expired = 9,
    /// The process ended before it could be sent.
    Shutdown = 10,
    /// The program is at its bound of Tabs.
    TooManyTabs = 11,
    /// It was written down, and could not be read any more.
    Damaged = 12,
    /// Its Tab type's Handler panicked.
    HandlerPanicked = 13,
    /// Servers failed on it again and again: an Agent took it out and set it aside.
    Poison = 14,
}

impl Where {
    /// The place with this number on the wire.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Client, Self::Agent, Self::Server].into_iter().find(|place| *place as u8 == code)
    }

    /// The word in the Ledger's Tab names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Agent => "agent",
            Self::Server => "server",
        }
    }
}

impl Why {
    /// Every reason there is.
    pub const ALL: [Self; 14] = [
        Self::BadName,
        Self::UnknownType,
        Self::TypeConflict,
        Self::Undecodable,
        Self::UnknownVersion,
        Self::BadValue,
        Self::Full,
        Self::Gap,
        Self::Expired,
        Self::Shutdown,
        Self::TooManyTabs,
        Self::Damaged,
        Self::HandlerPanicked,
        Self::Poison,
    ];

    /// The word in the Ledger's Tab names and in error answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadName => "bad_name",
            Self::UnknownType => "unknown_type",
            Self::TypeConflict => "type_conflict",
            Self::Undecodable => "undecodable",
            Self::UnknownVersion => "unknown_version",
            Self::BadValue => "bad_value",
            Self::Full => "full",
            Self::Gap => "gap",
            Self::Expired => "expired",
            Self::Shutdown => "shutdown",
            Self::TooManyTabs => "too_many_tabs",
            Self::Damaged => "damaged",
            Self::HandlerPanicked => "handler_panicked",
            Self::Poison => "poison",
        }
    }

    /// The reason with this number on the wire.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|why| *why as u8 == code)
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The Tab that counts what was dropped there for that reason.
pub fn dropped_tab(place: Where, why: Why) -> TabName {
    TabName::new(&format!("{DROPPED};where={place};why={why}"))
        .expect("both words are made of name characters")
}

/// The Client under which is counted what a Stream lost of Clients that nobody knows any more.
pub fn stream_client(stream: StreamId) -> ClientId {
    ClientId::new(&format!("taba.stream/{stream}")).expect("hexadecimal digits are name characters")
}

/// One of the Ledger's fixed Tabs.
///
/// # Panics
/// When `name` is not one of the constants of this module.
pub fn tab(name: &'static str) -> TabName {
    assert!(matches!(name, RECORDED | DELETED | CLAMPED), "{name} is not a Tab of the Ledger");
    TabName::new(name).expect("the constants are names")
}

/// [`TAB_TYPE`], checked.
pub fn tab_type() -> TabType {
    TabType::new(TAB_TYPE).expect("the constant is a type name")
}
