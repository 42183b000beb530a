package dev.tidemark.engine.source.plan;

import java.util.List;

/**
 * One condition of a migration with the value found and what follows from it; the conditions it is
 * made of below it. A tree of these explains a verdict.
 *
 * @param text what is asked
 * @param value what was found
 * @param verdict what follows; of a condition with children, the worst of theirs at least
 * @param children what it is made of
 */
public record Condition(String text, String value, Verdict verdict, List<Condition> children) {
  /** What follows from a condition, from harmless to fatal. */
  public enum Verdict {
    /** No verdict of its own: not asked any more, or only a part of the answer. */
    NONE("-"),

    /** Holds. */
    PASSES("ok"),

    /** Holds, at a price. */
    WARNS("WARNING"),

    /** A migration cannot start. */
    BLOCKS("BLOCKER");

    private final String text;

    Verdict(String text) {
      this.text = text;
    }

    /** The worse of two. */
    Verdict or(Verdict other) {
      return compareTo(other) >= 0 ? this : other;
    }

    @Override
    public String toString() {
      return text;
    }
  }

  /** Takes a copy of the list. */
  public Condition {
    children = List.copyOf(children);
  }

  static Condition of(String text, String value, Verdict verdict) {
    return new Condition(text, value, verdict, List.of());
  }

  static Condition of(String text, String value, List<Condition> children) {
    Verdict worst = Verdict.NONE;
    for (Condition child : children) {
      worst = worst.or(child.verdict);
    }
    return new Condition(text, value, worst, children);
  }

  boolean blocks() {
    return verdict == Verdict.BLOCKS;
  }

  /** The whole tree, a condition per line. */
  @Override
  public String toString() {
    StringBuilder out = new StringBuilder();
    print(out, "", "");
    return out.toString();
  }

  private void print(StringBuilder out, String here, String below) {
    out.append(here).append(text).append(": ").append(value);
    out.append(" [").append(verdict).append("]\n");
    for (int i = 0; i < children.size(); i++) {
      boolean last = i == children.size() - 1;
      children.get(i).print(out, below + (last ? "`- " : "|- "), below + (last ? "   " : "|  "));
    }
  }
}
