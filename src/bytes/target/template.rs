//! Route templates: `/course/{id}/=course-{id}`, `/stream={?channel=sse}`.

use std::fmt;

use super::BadTarget;
use crate::ground::config::RouteTemplate;

/// A piece of a channel template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(Vec<u8>),
    /// A placeholder of the path; `is_rest` if it may hold a `/`.
    Path {
        name: String,
        is_rest: bool,
    },
    /// A query parameter; at most one in a template.
    Query {
        name: String,
        default: Option<Vec<u8>>,
    },
}

/// A placeholder of a path template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathName {
    name: String,
    is_rest: bool,
}

/// A route template that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    pub template: RouteTemplate,
    pub problem: RouteProblem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteProblem {
    /// The path does not begin with `/`.
    Relative,
    /// The path has bytes that no request path has.
    PathBytes,
    /// Unbalanced or literal braces in the path, or a bad name in them.
    PathName,
    /// Two placeholders of one name in the path.
    SameName {
        name: String,
    },
    TooManyNames,
    /// Two placeholders in one segment of the path.
    TwoInSegment,
    /// `{*rest}` elsewhere than at the end of the path.
    RestInside,
    /// The same paths as an earlier template.
    Conflict {
        with: String,
    },
    EmptyChannel,
    /// Unbalanced braces in the channel.
    Braces,
    /// The channel has a placeholder that the path lacks.
    Unknown {
        name: String,
    },
    /// A placeholder `{?}`, or `{?name=}`.
    EmptyParameter,
    /// More than one query parameter.
    TwoParameters,
    /// A channel without placeholders that every request would be refused for.
    NeverGood(BadTarget),
}

/// Checks a path template and finds its placeholders.
pub(super) fn parse_path(path: &str) -> Result<Vec<PathName>, RouteProblem> {
    if !path.starts_with('/') {
        return Err(RouteProblem::Relative);
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#')) {
        return Err(RouteProblem::PathBytes);
    }
    let mut names: Vec<PathName> = Vec::new();
    for piece in pieces(path).map_err(|UnbalancedBraces| RouteProblem::PathName)? {
        match piece {
            // matchit reads `{{x}}}` otherwise than we do, and browsers send `%7B` anyway.
            Piece::Text("{" | "}") => return Err(RouteProblem::PathName),
            Piece::Text(_) => {}
            Piece::Placeholder(inner) => {
                let path_name = path_name(inner)?;
                if names.iter().any(|earlier| earlier.name == path_name.name) {
                    return Err(RouteProblem::SameName { name: path_name.name });
                }
                names.push(path_name);
            }
        }
    }
    if names.len() > PATH_NAMES_MAX {
        return Err(RouteProblem::TooManyNames);
    }
    matchit::Router::new().insert(path, ())?;
    Ok(names)
}

/// Compiles a channel template, given the placeholders of its path.
pub(super) fn parse_channel(template: &str, names: &[PathName]) -> Result<Vec<Part>, RouteProblem> {
    if template.is_empty() {
        return Err(RouteProblem::EmptyChannel);
    }
    let pieces = pieces(template).map_err(|UnbalancedBraces| RouteProblem::Braces)?;
    let mut parts = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => {
                if text.bytes().any(|byte| byte.is_ascii_control()) {
                    return Err(RouteProblem::NeverGood(BadTarget::ControlByte));
                }
                match parts.last_mut() {
                    Some(Part::Text(before)) => before.extend_from_slice(text.as_bytes()),
                    _ => parts.push(Part::Text(text.as_bytes().to_vec())),
                }
            }
            Piece::Placeholder(inner) => match inner.strip_prefix('?') {
                None => parts.push(path_part(inner, names)?),
                Some(_) if parts.iter().any(|part| matches!(part, Part::Query { .. })) => {
                    return Err(RouteProblem::TwoParameters);
                }
                Some(parameter) => parts.push(query_part(parameter)?),
            },
        }
    }
    Ok(parts)
}

impl From<matchit::InsertError> for RouteProblem {
    fn from(error: matchit::InsertError) -> Self {
        match error {
            matchit::InsertError::Conflict { with } => Self::Conflict { with },
            matchit::InsertError::InvalidParamSegment => Self::TwoInSegment,
            matchit::InsertError::InvalidCatchAll => Self::RestInside,
            _ => Self::PathName,
        }
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}", self.template.path, self.template.channel, self.problem)
    }
}

impl std::error::Error for RouteError {}

impl fmt::Display for RouteProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative => f.write_str("the path must begin with /"),
            Self::PathBytes => f.write_str(
                "the path must be what requests send: visible ASCII, the rest percent-encoded, \
                 without ? and #",
            ),
            Self::PathName => f.write_str(
                "bad braces in the path: expected {name} or {*rest}, the name of letters, digits, \
                 - and _ (a literal brace is %7B or %7D)",
            ),
            Self::SameName { name } => {
                write!(f, "the path has two placeholders with the name {name}")
            }
            Self::TooManyNames => {
                write!(
                    f,
                    "the path has too many placeholders: at most {PATH_NAMES_MAX} are allowed"
                )
            }
            Self::TwoInSegment => {
                f.write_str("the path has two placeholders between slashes: only one is allowed")
            }
            Self::RestInside => f.write_str("{*rest} must be the end of the path"),
            Self::Conflict { with } => {
                write!(f, "the path matches the same requests as the route of {with}")
            }
            Self::EmptyChannel => f.write_str("the channel is empty"),
            Self::Braces => f.write_str(
                "the channel has unbalanced braces: expected {name}, {?parameter} or \
                 {?parameter=default} (a literal brace is {{ or }})",
            ),
            Self::Unknown { name } => write!(
                f,
                "the channel has {{{name}}}, which the path has not (a query parameter is {{?{name}}})"
            ),
            Self::EmptyParameter => f.write_str(
                "a query parameter has an empty name or default: expected {?parameter} or \
                 {?parameter=default}",
            ),
            Self::TwoParameters => {
                f.write_str("the channel has two query parameters: only one is allowed")
            }
            Self::NeverGood(bad) => write!(f, "every request would be refused: {bad}"),
        }
    }
}

enum Piece<'a> {
    Text(&'a str),
    /// What stands between the braces.
    Placeholder(&'a str),
}

struct UnbalancedBraces;

/// Takes a template apart. `{{` and `}}` are literal braces, as in matchit.
fn pieces(template: &str) -> Result<Vec<Piece<'_>>, UnbalancedBraces> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let text_bytes = rest.find(['{', '}']).unwrap_or(rest.len());
        let (text, at_brace) = rest.split_at_checked(text_bytes).ok_or(UnbalancedBraces)?;
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        if let Some(after) = at_brace.strip_prefix("{{") {
            pieces.push(Piece::Text("{"));
            rest = after;
        } else if let Some(after) = at_brace.strip_prefix("}}") {
            pieces.push(Piece::Text("}"));
            rest = after;
        } else if let Some(after) = at_brace.strip_prefix('{') {
            let (inner, after) = after.split_once('}').ok_or(UnbalancedBraces)?;
            if inner.contains('{') {
                return Err(UnbalancedBraces);
            }
            pieces.push(Piece::Placeholder(inner));
            rest = after;
        } else if at_brace.is_empty() {
            rest = at_brace;
        } else {
            return Err(UnbalancedBraces);
        }
    }
    Ok(pieces)
}

fn path_name(inner: &str) -> Result<PathName, RouteProblem> {
    let rest = inner.strip_prefix('*');
    let name = rest.unwrap_or(inner);
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(is_name_byte) {
        return Err(RouteProblem::PathName);
    }
    Ok(PathName { name: name.to_owned(), is_rest: rest.is_some() })
}

fn path_part(inner: &str, names: &[PathName]) -> Result<Part, RouteProblem> {
    // `{*rest}` may be written in the channel as it stands in the path, or as `{rest}`.
    let is_same = |path: &&PathName| {
        inner == path.name || (path.is_rest && inner.strip_prefix('*') == Some(&path.name))
    };
    match names.iter().find(is_same) {
        Some(path) => Ok(Part::Path { name: path.name.clone(), is_rest: path.is_rest }),
        None => Err(RouteProblem::Unknown { name: inner.to_owned() }),
    }
}

fn query_part(parameter: &str) -> Result<Part, RouteProblem> {
    let (name, default) = match parameter.split_once('=') {
        Some((name, default)) => (name, Some(default)),
        None => (parameter, None),
    };
    if name.is_empty() || default == Some("") {
        return Err(RouteProblem::EmptyParameter);
    }
    let default = default.map(|text| text.as_bytes().to_vec());
    Ok(Part::Query { name: name.to_owned(), default })
}

/// matchit panics beyond 26 placeholders.
const PATH_NAMES_MAX: usize = 16;
