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

/// Begins the id under which is counted what a Stream lost of Clients that nobody knows any more.
pub const STREAM_PREFIX: &str = "taba.stream/";

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

/// Where and why what this Tab counts was dropped; `None` for every other Tab.
pub fn dropped_of(tab: &TabName) -> Option<(Where, Why)> {
    let places = [Where::Client, Where::Agent, Where::Server].into_iter();
    let place = places.into_iter().find(|place| tab.label("where") == Some(place.as_str()))?;
    let why = Why::ALL.into_iter().find(|why| tab.label("why") == Some(why.as_str()))?;
    (*tab == dropped_tab(place, why)).then_some((place, why))
}

/// Every Tab of the Ledger.
pub fn tabs() -> impl Iterator<Item = TabName> {
    let places = [Where::Client, Where::Agent, Where::Server].into_iter();
    let dropped = places.flat_map(|place| Why::ALL.into_iter().map(move |why| dropped_tab(place, why)));
    [RECORDED, DELETED, CLAMPED].into_iter().map(tab).chain(dropped)
}

/// Whether the Ledger has this Tab, or its accounts. Another one under the reserved prefix is nobody's.
pub fn is_tab(tab: &TabName) -> bool {
    matches!(tab.as_str(), RECORDED | DELETED | CLAMPED)
        || tab.base() == ACCOUNTS
        || (tab.base() == DROPPED && dropped_of(tab).is_some())
}

/// Whether a sender may write this Tab of this Client: whatever is not reserved; of the Ledger, a Client what it recorded, and what it
/// dropped itself; an Agent also what was dropped in it, of Clients and of streams. Everything else a Server writes alone.
pub fn may_write(by: Where, tab: &TabName, client: &ClientId) -> bool {
    let is_stream = client.as_str().strip_prefix(STREAM_PREFIX).is_some_and(is_stream_number);
    if client.is_reserved() && (by == Where::Client || !is_stream || !tab.is_reserved()) {
        return false;
    }
    if !tab.is_reserved() || tab.as_str() == RECORDED {
        return true;
    }
    match dropped_of(tab) {
        Some((Where::Client, _)) => true,
        Some((Where::Agent, _)) => by == Where::Agent,
        Some((Where::Server, _)) | None => false,
    }
}

fn is_stream_number(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The Client under which is counted what a Stream lost of Clients that nobody knows any more.
pub fn stream_client(stream: StreamId) -> ClientId {
    ClientId::new(&format!("{STREAM_PREFIX}{stream}")).expect("hexadecimal digits are name characters")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_writes_what_others_note() {
        let stream = stream_client(StreamId(7));
        let web = ClientId::new("web").unwrap();
        let may = |by, tab: &str, client: &ClientId| may_write(by, &TabName::new(tab).unwrap(), client);
        for by in [Where::Client, Where::Agent] {
            assert!(may(by, "bids", &web) && may(by, RECORDED, &web));
            for why in Why::ALL {
                assert!(may(by, &format!("taba.dropped;where=client;why={why}"), &web));
                assert_eq!(may(by, &format!("taba.dropped;where=agent;why={why}"), &web), by == Where::Agent);
                assert_eq!(
                    may(by, &format!("taba.dropped;where=agent;why={why}"), &stream),
                    by == Where::Agent
                );
                assert!(!may(by, &format!("taba.dropped;where=server;why={why}"), &web));
            }
            let nobodys = [
                "taba.deleted",
                "taba.clamped",
                "taba.accounts",
                "taba.spread",
                "taba.x",
                "taba.dropped",
                "taba.recorded;a=b",
                "taba.dropped;where=client;why=whim",
                "taba.dropped;where=client",
                "taba.dropped;a=b;where=client;why=full",
                "taba.recordeds",
            ];
            for tab in nobodys {
                assert!(!may(by, tab, &web) && !may(by, tab, &stream), "{tab}");
            }
            for client in ["taba.web", "taba.stream/x", "taba.stream/00000000000000070", "taba.crowd"] {
                let client = ClientId::new(client).unwrap();
                assert!(!may(by, "bids", &client) && !may(by, RECORDED, &client), "{client}");
            }
            assert!(!may(by, "bids", &stream));
            assert_eq!(may(by, RECORDED, &stream), by == Where::Agent);
        }
    }

    #[test]
    fn every_tab_of_the_ledger_is_known() {
        for place in [Where::Client, Where::Agent, Where::Server] {
            for why in Why::ALL {
                let tab = dropped_tab(place, why);
                assert!(dropped_of(&tab) == Some((place, why)) && is_tab(&tab));
            }
        }
        assert!(
            [RECORDED, DELETED, CLAMPED, ACCOUNTS].iter().all(|name| is_tab(&TabName::new(name).unwrap()))
        );
        assert!(!is_tab(&TabName::new("taba.dropped;where=client;why=whim").unwrap()));
    }
}
