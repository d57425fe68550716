//! [`Rule`]: what exactly-once rests on, each under a name, each with a switch.

use std::fmt;

/// One rule of the protocol. Everything in this module asks [`Rules::has`] where the rule bites and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Rule {
    /// A Server folds a Batch only if its number follows on the mark, or if the sender has nothing between.
    GapFreeOrder,
    /// A version is never used again for other content. Off: it is a counter.
    UniqueVersion,
    /// A commit happens only if the VBucket is at the version that it was planned for.
    ConditionalCommit,
    /// States, marks and version are written by one command. Off: the States first, the rest after.
    OneWritePerCommit,
    /// Only an answer by a commit that was made after the message arrived lets go of anything.
    FreshOnlyFromCommits,
    /// What is answered without a commit rests on the version that the store has. Off: on the cache, as it is.
    AnswersChecked,
    /// A Probe is answered by a commit. Off: from the cache.
    ProbeCommits,
    /// What a Server believes to be stable is forgotten with its cache.
    BeliefDiesWithCache,
    /// But for a conflict after which its own last commit is found, by a signature: others have written, and the store
    /// has not gone back. Off: nothing is signed.
    SignedCommits,
    /// A store whose list of replicas is shorter than its deployment says nothing about what is stable.
    ShortListSaysNothing,
    /// What is stable is also old enough to be on the disk of every node.
    StableOnDisk,
    /// A Server begins no Lane for what was sent long ago, or in the future, by its own clock.
    ClocksAgree,
    /// A mark is written by the later and judged by the earlier of two clocks.
    MarksByTwoClocks,
    /// An Agent lets go only of what is stable.
    StableBeforeRelease,
    /// An Agent lets go only after an answer to a message sent T after the Batch's own answer.
    ConfirmAfterT,
    /// That T ends where the message was sent. Off: where its answer was heard.
    ConfirmFromSent,
    /// An answer below what was answered before takes the Lane back.
    RewindOnLowerAnswer,
    /// What a Lane goes back over waits for T again.
    RewindForgetsAnswers,
    /// An answer counts for the message that it answers, and for no other.
    AnswersMatch,
    /// What is sealed under a number never changes.
    ImmutableContent,
    /// What is sealed is in the Spool before it is sent.
    SealedBeforeSent,
    /// An Agent that was restarted appends to none of its old Streams.
    NewStreamAfterRestart,
    /// Each message says what the oldest is that its sender still has.
    BaseTold,
    /// That something is lost is told until it is stable, as if it were a Batch.
    LossIsConfirmed,
    /// An Agent sends no Batch that is older than a bound, and nothing at all of a Stream that is. What is from the
    /// future waits until it is not: a clock is wrong, or was.
    YoungOnly,
    /// A Stream takes new events for a bounded time.
    StreamsEnd,
    /// Within one run of an Agent, ages are counted on a clock that nobody can set. Off: on the clock of the day.
    AgesByUptime,
    /// A commit is made only on a copy that is not fenced, under the epoch that the Server knows.
    FenceHolds,
    /// Nothing is copied before the fence is on the replicas of the source.
    FenceConfirmed,
    /// The destination is switched to an epoch only if it has not seen that epoch.
    SwitchOnce,
    /// The destination is switched only within a bounded time after the fence was confirmed.
    SwitchInTime,
    /// Before the source is unfenced, the destination gets a bar, so that no switch under that epoch can come.
    BarFirst,
    /// And the replicas of the destination have the bar.
    BarConfirmed,
    /// And the source is unfenced within a bounded time after the bar was written.
    UnfenceInTime,
    /// A bar takes the place of an older copy only once what the source holds is stable.
    BarOverCopy,
    /// The copy of the source goes only when the switch is stable at the destination, as seen over one connection.
    RetireStable,
    /// And only if the source is fenced as it was.
    RetireUnchanged,
    /// Of all copies that are not fenced, the one with the highest epoch owns, unless a fenced one has a higher one.
    HighestOwns,
    /// Over a new connection, a Server asks all shards what they hold before it writes.
    CensusFirst,
    /// And asks once more, after the time within which a destination may be switched, before it believes that
    /// anything is stable.
    CensusAgain,
}

impl Rule {
    /// Those of one shard, and of its Servers and Agents.
    pub const OF_ONE_SHARD: [Self; 27] = [
        Self::GapFreeOrder,
        Self::UniqueVersion,
        Self::ConditionalCommit,
        Self::OneWritePerCommit,
        Self::FreshOnlyFromCommits,
        Self::AnswersChecked,
        Self::ProbeCommits,
        Self::BeliefDiesWithCache,
        Self::SignedCommits,
        Self::ShortListSaysNothing,
        Self::StableOnDisk,
        Self::ClocksAgree,
        Self::MarksByTwoClocks,
        Self::StableBeforeRelease,
        Self::ConfirmAfterT,
        Self::ConfirmFromSent,
        Self::RewindOnLowerAnswer,
        Self::RewindForgetsAnswers,
        Self::AnswersMatch,
        Self::ImmutableContent,
        Self::SealedBeforeSent,
        Self::NewStreamAfterRestart,
        Self::BaseTold,
        Self::LossIsConfirmed,
        Self::YoungOnly,
        Self::StreamsEnd,
        Self::AgesByUptime,
    ];
    /// Those of a VBucket that moves from shard to shard.
    pub const OF_MOVING: [Self; 13] = [
        Self::FenceHolds,
        Self::FenceConfirmed,
        Self::SwitchOnce,
        Self::SwitchInTime,
        Self::BarFirst,
        Self::BarConfirmed,
        Self::UnfenceInTime,
        Self::BarOverCopy,
        Self::RetireStable,
        Self::RetireUnchanged,
        Self::HighestOwns,
        Self::CensusFirst,
        Self::CensusAgain,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Which rules are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    off: u64,
}

impl Rules {
    /// The protocol as it is.
    pub const ALL: Self = Self { off: 0 };

    /// The same without one more rule.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self { off: self.off | 1_u64 << rule as u8 }
    }

    /// The same with this rule.
    #[must_use]
    pub const fn with(self, rule: Rule) -> Self {
        Self { off: self.off & !(1_u64 << rule as u8) }
    }

    /// Whether this rule is kept.
    pub const fn has(self, rule: Rule) -> bool {
        self.off & (1_u64 << rule as u8) == 0
    }
}
