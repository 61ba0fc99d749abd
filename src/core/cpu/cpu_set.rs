//! Sets of logical CPUs in the kernel's list format (cpuset(7)): `0-3,8`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// CPUs are numbered below it: the size of the mask in sched_setaffinity(2).
pub const MAX_CPUS: u32 = 1024;

/// A set of logical CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<u32>);

/// A text isn't a list of CPUs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} isn't a list of CPUs below {MAX_CPUS} such as \"2-7,12\"")]
pub struct ParseCpuSetError {
    text: String,
}

impl CpuSet {
    /// Whether it has no CPU.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of CPUs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has this CPU.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.contains(&cpu)
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// The CPUs that aren't in the other set.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }

    /// The CPUs of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl FromStr for CpuSet {
    type Err = ParseCpuSetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| -> Option<u32> {
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse().ok().filter(|cpu| is_number && *cpu < MAX_CPUS)
        };
        let add = |set: &mut BTreeSet<u32>, range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (number(first.trim())?, number(last.trim())?);
            set.extend(first..=last);
            (first <= last).then_some(())
        };
        let mut set = BTreeSet::new();
        let parts = text.trim().split(',').filter(|_| !text.trim().is_empty());
        match parts.map(|part| add(&mut set, part)).all(|added| added.is_some()) {
            true => Ok(Self(set)),
            false => Err(ParseCpuSetError { text: text.chars().take(64).collect() }),
        }
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| *next == last + 1) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    #[test]
    fn lists_of_the_kernel_are_parsed() {
        assert_eq!(set("0-3,8\n").iter().collect::<Vec<_>>(), [0, 1, 2, 3, 8]);
        assert_eq!(set(" 2 - 3 , 7 "), set("2-3,7"));
        assert!(set("").is_empty() && set("\n").is_empty());
        assert_eq!(set("0-3").without(&set("1-2")), set("0,3"));
        for bad in ["3-1", "a", "1,", ",", "-1", "0-", "1024", "0-99999999999", "+1", "0-3:2/4"] {
            let error = bad.parse::<CpuSet>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn text_of_a_set_is_the_set(cpus in proptest::collection::btree_set(0..MAX_CPUS, 0..40)) {
            let set = CpuSet(cpus);
            prop_assert_eq!(set.to_string().parse::<CpuSet>().unwrap(), set);
        }
    }
}
