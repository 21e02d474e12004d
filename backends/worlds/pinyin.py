"""Mandarin syllables as the Opencpop corpus divides them: an initial and a final, or a final alone. Tones are not written."""

FINALS = {
    "": "a ai an ang ao e ei en eng er m n o ou", "b": "a ai an ang ao ei en eng i ian iao ie in ing o u", "c": "a ai an ang ao e ei en eng i ong ou u uan ui un uo",
    "ch": "a ai an ang ao e en eng i ong ou u ua uai uan uang ui un uo", "d": "a ai an ang ao e ei en eng i ia ian iao ie ing iu ong ou u uan ui un uo",
    "f": "a an ang ei en eng o ou u", "g": "a ai an ang ao e ei en eng ong ou u ua uai uan uang ui un uo", "h": "a ai an ang ao e ei en eng m ong ou u ua uai uan uang ui un uo",
    "j": "i ia ian iang iao ie in ing iong iu v van ve vn", "k": "a ai an ang ao e ei en eng ong ou u ua uai uan uang ui un uo",
    "l": "a ai an ang ao e ei eng i ia ian iang iao ie in ing iu o ong ou u uan un uo v ve", "m": "a ai an ang ao e ei en eng i ian iao ie in ing iu o ou u",
    "n": "a ai an ang ao e ei en eng g i ian iang iao ie in ing iu ong ou u uan un uo v ve", "p": "a ai an ang ao ei en eng i ian iao ie in ing o ou u",
    "q": "i ia ian iang iao ie in ing iong iu v van ve vn", "r": "an ang ao e en eng i ong ou u ua uan ui un uo", "s": "a ai an ang ao e en eng i ong ou u uan ui un uo",
    "sh": "a ai an ang ao e ei en eng i ou u ua uai uan uang ui un uo", "t": "a ai an ang ao e ei eng i ian iao ie ing ong ou u uan ui un uo", "w": "a ai an ang ei en eng o u",
    "x": "i ia ian iang iao ie in ing iong iu v van ve vn", "y": "a an ang ao e i in ing o ong ou v van ve vn", "z": "a ai an ang ao e ei en eng i ong ou u uan ui un uo",
    "zh": "a ai an ang ao e ei en eng i ong ou u ua uai uan uang ui un uo",
}  # fmt: skip

# Syllable as written -> phones; v is ü, which is written u after j, q, x and y.
PINYIN = {
    initial + (final.replace("v", "u") if initial in ("j", "q", "x", "y") else final): (initial, final) if initial else (final,)
    for initial, finals in FINALS.items()
    for final in finals.split()
}
