//! [`Verdict`]: what a reply of a Cluster node asks for. Pure.

use super::nodes::at_host;
use crate::command::Reply;

/// What to do after the replies to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are the answer.
    Done,
    /// The slot belongs to the node at this address: send it there, from now on.
    Moved(String),
    /// The key is on its way to the node at this address: send it there once, after `ASKING`.
    Ask(String),
    /// Nothing was done: some keys of the slot have moved already and others have not, or the node cannot serve it yet.
    Wait,
    /// Nothing was done: the node serves no slot, or not this one. Another may, so the nodes are asked.
    Refresh,
    /// The scripts have to be loaded first.
    Load,
}

impl Verdict {
    /// `host`: that of the node that has answered.
    pub(super) fn of(replies: &[Reply], host: &str) -> Self {
        let refused = |reply: &Reply| match reply {
            Reply::Refused { code, detail } => Some((code.clone(), detail.clone())),
            _ => None,
        };
        let last = replies.last().and_then(refused);
        let Some((code, detail)) = (match last {
            // The error of a command before says why.
            Some((code, _)) if code == "EXECABORT" => replies.iter().find_map(refused),
            last => last,
        }) else {
            return Self::Done;
        };
        // MOVED 3999 127.0.0.1:6381
        let address = || at_host(detail.split(' ').nth(1)?, host);
        match code.as_str() {
            "MOVED" => address().map_or(Self::Refresh, Self::Moved),
            "ASK" => address().map_or(Self::Wait, Self::Ask),
            "TRYAGAIN" | "LOADING" => Self::Wait,
            "CLUSTERDOWN" | "READONLY" | "MASTERDOWN" => Self::Refresh,
            "NOSCRIPT" => Self::Load,
            _ => Self::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, detail: &str) -> Reply {
        Reply::Refused { code: code.to_owned(), detail: detail.to_owned() }
    }

    #[test]
    fn what_a_node_refuses_because_of_a_slot_is_sent_again_and_nothing_else_is() {
        let of = |code, detail| Verdict::of(&[refused(code, detail)], "10.0.0.9");
        assert_eq!(of("MOVED", "3999 127.0.0.1:6381"), Verdict::Moved("127.0.0.1:6381".to_owned()));
        assert_eq!(of("MOVED", "3999 :6381"), Verdict::Moved("10.0.0.9:6381".to_owned()));
        assert_eq!(of("MOVED", "3999"), Verdict::Refresh);
        assert_eq!(of("ASK", "3999 ::1:6381"), Verdict::Ask("[::1]:6381".to_owned()));
        assert_eq!(of("TRYAGAIN", "Multiple keys request during rehashing of slot"), Verdict::Wait);
        for code in ["CLUSTERDOWN", "READONLY", "MASTERDOWN"] {
            assert_eq!(of(code, ""), Verdict::Refresh);
        }
        for code in ["OOM", "MISCONF", "NOREPLICAS", "WRONGTYPE", "CROSSSLOT", "ERR"] {
            assert_eq!(of(code, ""), Verdict::Done);
        }
        assert_eq!(Verdict::of(&[Reply::Integer(1)], "h"), Verdict::Done);
    }

    #[test]
    fn a_transaction_is_refused_as_its_first_refused_command() {
        let ask = || refused("ASK", "1 127.0.0.1:7");
        let abort = || refused("EXECABORT", "Transaction discarded because of previous errors.");
        let queued = || Reply::Bytes("QUEUED".into());
        let replies = [Reply::Done, queued(), ask(), abort()];
        assert_eq!(Verdict::of(&replies, "h"), Verdict::Ask("127.0.0.1:7".to_owned()));
        let replies = [Reply::Done, refused("ERR", "syntax error"), abort()];
        assert_eq!(Verdict::of(&replies, "h"), Verdict::Done);
        assert_eq!(Verdict::of(&[Reply::Done, queued(), Reply::List(vec![])], "h"), Verdict::Done);
    }
}
