//! The type of an interned name. `interner.rs` maps names to texts.

/// An interned name: a kind, a source, or an entity or attribute key.
///
/// Kinds, sources and keys are few and repeat in every event, so an event carries a 16-bit number
/// for each, and the text is stored once per process. Numbers are stable within a process only;
/// everything that leaves the process carries the text.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct Name(pub u16);

impl From<&ArchivedName> for Name {
    fn from(archived: &ArchivedName) -> Self {
        Self(archived.0.to_native())
    }
}
