//! [`Head`]: what a shard's copy says of who owns the VBucket, and what can be read from the heads of all copies; and the
//! scripts of a move, each of which looks and writes at once, on one node of a [`Store`].
//!
//! ```text
//! source            own 1 ── fence: own 1, moved 2 ─────────────────── retire: tombstone
//!                                └─ copied ─┐
//! destination       (no copy) ──────────────┴─ switch: own 2
//! ```

use super::rules::{Rule, Rules};
use super::store::{Content, Entry, Store, Time};

/// How many shards there may be.
pub const SHARDS: usize = 2;

/// Under which epoch a copy goes, or went, and to which shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moved {
    /// The epoch that the other copy has, or will have.
    pub epoch: u8,
    /// The shard of that copy.
    pub to: u8,
}

/// What a copy says of who owns the VBucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Head {
    /// The epoch of its ownership; 0: this shard holds no copy.
    pub epoch: u8,
    /// Set: it is fenced, and takes no commit.
    pub moved: Option<Moved>,
    /// Whether it holds more than this head.
    pub has_content: bool,
    /// Whether it was written only to turn away switches up to its epoch.
    pub is_bar: bool,
}

impl Head {
    /// Of the VBucket when it was made.
    pub const FIRST: Self = Self { epoch: 1, moved: None, has_content: true, is_bar: false };

    /// Whether it takes commits at all.
    pub const fn is_open(&self) -> bool {
        self.epoch > 0 && self.moved.is_none()
    }

    /// Whether it takes commits under this epoch.
    pub const fn is_owned(&self, epoch: u8) -> bool {
        self.is_open() && self.epoch == epoch
    }

    /// The head of a bar at the destination of a move.
    pub const fn bar(fence: u8, from: u8) -> Self {
        let moved = Some(Moved { epoch: fence + 1, to: from });
        Self { epoch: fence, moved, has_content: false, is_bar: true }
    }
}

/// The shard that owns the VBucket, and its epoch; `None` while it is fenced and not yet switched.
pub fn owner(heads: &[Head], rules: Rules) -> Option<(usize, u8)> {
    let highest = heads.iter().map(|head| head.epoch).max().unwrap_or(0);
    let owns = |head: &Head| head.is_open() && (head.epoch == highest || !rules.has(Rule::HighestOwns));
    heads.iter().position(owns).map(|shard| (shard, heads[shard].epoch))
}

/// The content that every owner to come begins with: of the copies that hold any, the one with the highest epoch.
pub fn prevailing<'a>(copies: impl IntoIterator<Item = &'a Content>) -> Option<&'a Content> {
    copies.into_iter().filter(|copy| copy.head.has_content).max_by_key(|copy| copy.head.epoch)
}

/// The move that brings the VBucket further: what was left of an earlier move first, then to the shard that is to own it.
pub fn pending(heads: &[Head], wanted: Option<usize>) -> Option<(usize, usize)> {
    let Some((owner, _)) = owner(heads, Rules::ALL) else {
        let copies = heads.iter().enumerate().filter(|(_, head)| head.epoch > 0 && !head.is_bar);
        let (from, last) = copies.max_by_key(|(_, head)| head.epoch)?;
        let bar =
            heads.iter().position(|head| head.is_bar && head.moved.is_some_and(|to| to.to as usize == from));
        let to = last.moved.map(|moved| usize::from(moved.to)).or(bar)?;
        return Some((from, to));
    };
    let is_left = |head: &Head| head.epoch > 0 && !head.is_bar && (head.has_content || head.is_open());
    let left = (0..heads.len()).find(|shard| *shard != owner && is_left(&heads[*shard]));
    left.map(|from| (from, owner)).or_else(|| wanted.filter(|to| *to != owner).map(|to| (owner, to)))
}

/// A script on one node: it looks at what is there, and writes or does not. Answers the entry that it wrote.
impl Store {
    fn script(
        &mut self,
        node: usize,
        now: Time,
        change: impl FnOnce(Content) -> Option<Content>,
    ) -> Option<usize> {
        if !self.takes_writes(node, now) {
            return None;
        }
        let at = &mut self.nodes[node];
        let content = change(*at.tip())?;
        at.history.push(Entry { content, at: now });
        Some(at.history.len() - 1)
    }

    /// It takes nothing more, and says where it goes. Written also where it is so already, to wait for its replicas.
    pub fn fence(&mut self, node: usize, own: u8, moved: Moved, now: Time) -> Option<usize> {
        self.script(node, now, |mut copy| {
            let fits = copy.head.epoch == own && copy.head.moved.is_none_or(|found| found == moved);
            copy.head.moved = Some(moved);
            fits.then_some(copy)
        })
    }

    /// A copy is put in place, and owns the VBucket under this epoch.
    pub fn switch(
        &mut self,
        node: usize,
        fence: u8,
        copy: &Content,
        now: Time,
        rules: Rules,
    ) -> Option<usize> {
        let head = Head { epoch: fence, ..Head::FIRST };
        self.script(node, now, |found| {
            let fits = found.head.epoch < fence || !rules.has(Rule::SwitchOnce);
            fits.then_some(Content { head, ..*copy })
        })
    }

    /// Only a tombstone is left of a copy that is fenced so.
    pub fn retire(&mut self, node: usize, own: u8, moved: Moved, now: Time, rules: Rules) -> Option<usize> {
        self.script(node, now, |found| {
            let is_so = found.head.epoch == own && found.head.moved == Some(moved);
            let head = Head { has_content: false, is_bar: false, ..found.head };
            let fits = is_so || !rules.has(Rule::RetireUnchanged);
            fits.then_some(Content { head, version: found.version, ..Content::default() })
        })
    }

    /// A tombstone that turns away every switch up to its epoch. `over_copy`: an older copy may go.
    pub fn bar(&mut self, node: usize, bar: Head, over_copy: bool, now: Time) -> Option<usize> {
        self.script(node, now, |found| {
            let is_free = found.head.epoch < bar.epoch && (over_copy || !found.head.has_content);
            let fits = found.head == bar || is_free;
            fits.then_some(Content { head: bar, ..Content::default() })
        })
    }

    /// The source, if it is as it was found, owns the VBucket again, under a new epoch.
    pub fn unfence(
        &mut self,
        node: usize,
        own: u8,
        moved: Option<Moved>,
        epoch: u8,
        now: Time,
    ) -> Option<usize> {
        self.script(node, now, |mut copy| {
            let fits = copy.head.epoch == own && copy.head.moved == moved;
            (copy.head.epoch, copy.head.moved) = (epoch, None);
            fits.then_some(copy)
        })
    }
}
