//! Environment variables in the configuration: `${NAME}` and `${NAME:-default}`; `$$` is a dollar
//! sign. Comments are left as they are.

/// An error with its line and column, both from 1.
pub(super) type ErrorAt = (u64, u64, String);

/// Replaces the variables of a text with the values that `env` returns.
///
/// # Errors
/// A variable that isn't set, spans lines or isn't closed.
pub(super) fn expand(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<String, ErrorAt> {
    let mut out = String::with_capacity(text.len());
    for (number, line) in (1u64..).zip(text.split_inclusive('\n')) {
        if line.trim_start().starts_with('#') {
            out.push_str(line);
            continue;
        }
        let mut rest = line;
        while let Some(dollar) = rest.find('$') {
            let column = (line.len() - rest.len() + dollar + 1) as u64;
            let error = |cause: String| (number, column, cause);
            out.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(inner) = rest.strip_prefix('{') {
                let end = inner.find('}').ok_or_else(|| error("`${` without `}`".into()))?;
                out.push_str(&value(&inner[..end], &env).map_err(error)?);
                rest = &inner[end + 1..];
            } else {
                out.push('$');
            }
        }
        out.push_str(rest);
    }
    Ok(out)
}

/// The value of the variable in `${…}`.
fn value(variable: &str, env: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match variable.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (variable, None),
    };
    let value = env(name).or_else(|| default.map(str::to_owned));
    let value = value.ok_or_else(|| format!("${{{name}}} isn't set"))?;
    if value.contains('\n') {
        return Err(format!("${{{name}}} has more than one line"));
    }
    Ok(value)
}
