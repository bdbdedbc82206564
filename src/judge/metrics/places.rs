//! In which picture a figure of judged traces is shown. What is named here is drawn; rates are left to tables.

use super::super::interface::ROLES;
use super::measure::ROLE_GROUPS;
use crate::stats::Place;

/// The pictures of counted categories: the figure's group, what to call it, and whether arms are compared by it.
const COUNTED: [(&str, &str, bool); 4] = [
    ("conversational", "Conversational behaviours", true),
    ("cognitive", "Cognitive behaviours", true),
    ("role_groups", "Groups of roles", true),
    ("roles", "Roles", false),
];

/// The place of a figure of `figures`, if it has one.
pub fn place(name: &str) -> Option<Place> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["perspectives", "mean"] => Some(Place::new("Perspectives in a trace", "perspectives", "perspectives", true)),
        ["perspectives", "two_or_more"] => {
            Some(Place::new("Traces with two or more perspectives", "two or more", "traces, %", true))
        }
        ["balance", sides] => {
            let sides = sides.replace('_', " and ");
            Some(Place::new("Balance of roles", &sides, "traces with both of those with either, %", true))
        }
        ["personality", line, "diversity"] => {
            Some(Place::new("Diversity of personality within a trace", line, "standard deviation", true))
        }
        ["personality", line, "mean"] => Some(Place::new("Personality of all voices", line, "score, 1 to 5", false)),
        ["expertise", "diversity"] => {
            Some(Place::new("Diversity of expertise within a trace", "expertise", "cosine distance", true))
        }
        ["collectivity"] => Some(Place::new("Collectivity", "\"we\"", "per 100 words", true)),
        [group, line, measure] => counted(group, line, measure),
        _ => None,
    }
}

fn counted(group: &str, line: &str, measure: &str) -> Option<Place> {
    let (_, title, main) = *COUNTED.iter().find(|(known, ..)| *known == group)?;
    // Twelve lines are too many for one picture.
    let role = ROLES.iter().position(|role| group == "roles" && *role == line);
    let side = role.and_then(|role| ROLE_GROUPS.iter().find(|(_, own)| own.contains(&role)));
    let title = side.map_or(title.to_string(), |(side, _)| format!("{title} ({side})"));
    match measure {
        "prevalence" => Some(Place::new(format!("{title}: how many traces have them"), line, "traces, %", main)),
        "mean" => Some(Place::new(format!("{title}: how often in a trace"), line, "times", false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_one_picture_share_its_axis() {
        let own = place("roles/asks_for_opinion/prevalence").unwrap();
        assert_eq!(
            (own.picture.as_str(), own.line.as_str()),
            ("Roles (ask): how many traces have them", "asks for opinion")
        );
        assert!(place("perspectives/mean").unwrap().main && place("collectivity").unwrap().main);
        assert_eq!(place("balance/ask_give").unwrap().picture, place("balance/positive_negative").unwrap().picture);
        assert_eq!((place("missing"), place("conversational/conflict/per_1000_words")), (None, None));
    }
}
