//! Enums whose values have names: in metrics, `/status`, output and events.

/// Defines an enum with all its values and their names.
///
/// ```
/// tapio_core::closed_list! {
///     /// The state of a door.
///     pub Door {
///         /// It lets no one through.
///         Shut = "shut",
///         /// It lets everyone through.
///         Open = "open",
///     }
/// }
///
/// assert_eq!(Door::Open.as_str(), "open");
/// assert_eq!(Door::parse("shut"), Some(Door::Shut));
/// assert_eq!(Door::ALL.len(), 2);
/// ```
#[macro_export]
macro_rules! closed_list {
    (
        $(#[$doc:meta])*
        $vis:vis $type:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        $vis enum $type { $($(#[$vdoc])* $variant),* }

        impl $type {
            /// All values, in order of their numbers.
            $vis const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name.
            #[must_use]
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// Parses a name.
            #[must_use]
            $vis fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == name)
            }
        }
    };
}
