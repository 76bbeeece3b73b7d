//! What a server keeps beside the journals: which instants of which schedules are decided, and who may come in. Plain
//! data; when a schedule fires and what a role may do is not known here.

/// A schedule as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    pub schedule: String,
    /// All of its instants up to this one are decided; milliseconds since the epoch.
    pub decided: u64,
    pub paused: Option<Paused>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    pub by: String,
    /// Milliseconds since the epoch.
    pub at: u64,
    pub why: Option<String>,
}

/// What was decided about one instant of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiringRow {
    pub schedule: String,
    /// The instant; milliseconds since the epoch.
    pub at: u64,
    /// None: it was passed over.
    pub run: Option<String>,
    /// `started`, or why there is no run: one word.
    pub decision: String,
    pub decided_at: u64,
}

/// A token without what it is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its public part.
    pub id: String,
    /// Who uses it.
    pub name: String,
    /// Words, separated by commas.
    pub roles: String,
    /// Of the secret part.
    pub hash: Vec<u8>,
    /// Milliseconds since the epoch, as all times here.
    pub created_at: u64,
    pub created_by: String,
    pub expires_at: Option<u64>,
    pub revoked_at: Option<u64>,
}
