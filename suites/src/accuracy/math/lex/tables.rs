//! The commands, words and characters that answers are written with.

/// Commands that change only the look.
pub(super) const LOOKS: [&str; 25] = [
    "left",
    "right",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "displaystyle",
    "textstyle",
    "limits",
    "quad",
    "qquad",
    "mathbf",
    "mathbb",
    "mathcal",
    "boldsymbol",
    "bold",
    "bf",
    "rm",
    "thinspace",
    "hfill",
    "middle",
];

/// Commands whose argument is words.
pub(super) const WORDS: [&str; 9] = [
    "text",
    "mbox",
    "textbf",
    "textit",
    "textrm",
    "mathrm",
    "mathit",
    "operatorname",
    "hbox",
];

/// Plain words that mean a command.
pub(super) const NAMES: [(&str, &str); 24] = [
    ("sqrt", "sqrt"),
    ("pi", "pi"),
    ("infinity", "infty"),
    ("inf", "infty"),
    ("oo", "infty"),
    ("sin", "sin"),
    ("cos", "cos"),
    ("tan", "tan"),
    ("cot", "cot"),
    ("sec", "sec"),
    ("csc", "csc"),
    ("arcsin", "arcsin"),
    ("arccos", "arccos"),
    ("arctan", "arctan"),
    ("log", "log"),
    ("ln", "ln"),
    ("exp", "exp"),
    ("abs", "abs"),
    ("cup", "cup"),
    ("union", "cup"),
    ("degrees", "circ"),
    ("degree", "circ"),
    ("percent", "%"),
    ("pm", "pm"),
];

/// Plain words too short to be told from a product of letters by their length; they stand alone.
pub(super) const SHORT_WORDS: [&str; 26] = [
    "yes", "no", "odd", "and", "or", "all", "not", "the", "is", "are", "an", "of", "one", "two",
    "six", "ten", "red", "oz", "min", "sec", "hr", "in", "sq", "to", "cub", "per",
];

/// Short units, which may follow their number directly.
pub(super) const SHORT_UNITS: [&str; 11] = [
    "cm", "mm", "km", "kg", "ft", "mph", "lb", "lbs", "hrs", "yd", "kph",
];

/// Commands of one meaning under several names.
pub(super) const SYNONYMS: [(&str, &str); 27] = [
    ("dfrac", "frac"),
    ("tfrac", "frac"),
    ("cfrac", "frac"),
    ("leq", "le"),
    ("leqslant", "le"),
    ("geq", "ge"),
    ("geqslant", "ge"),
    ("neq", "ne"),
    ("times", "cdot"),
    ("ast", "cdot"),
    ("div", "/"),
    ("lbrace", "{"),
    ("rbrace", "}"),
    ("degree", "circ"),
    ("lvert", "|"),
    ("rvert", "|"),
    ("vert", "|"),
    ("mid", "|"),
    ("lbrack", "["),
    ("rbrack", "]"),
    ("emptyset", "varnothing"),
    ("dots", "ldots"),
    ("cdots", "ldots"),
    ("plusmn", "pm"),
    ("dbinom", "binom"),
    ("tbinom", "binom"),
    ("lparen", "("),
];

/// Characters outside ASCII and the command or sign that they stand for.
pub(super) const UNICODE: [(char, &str); 23] = [
    ('π', "pi"),
    ('√', "sqrt"),
    ('×', "cdot"),
    ('·', "cdot"),
    ('⋅', "cdot"),
    ('÷', "/"),
    ('∞', "infty"),
    ('≤', "le"),
    ('≥', "ge"),
    ('≠', "ne"),
    ('°', "circ"),
    ('±', "pm"),
    ('∪', "cup"),
    ('∈', "in"),
    ('∅', "varnothing"),
    ('θ', "theta"),
    ('α', "alpha"),
    ('β', "beta"),
    ('∩', "cap"),
    ('⟨', "langle"),
    ('⟩', "rangle"),
    ('≈', "approx"),
    ('ℝ', "R"),
];
