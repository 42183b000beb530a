package dev.tidemark.engine.source.plan;

/** What the operator wants of something that may or may not be possible. */
public enum OnOffAuto {
  /** Wanted: an error if it is not possible. */
  ON,

  /** Not wanted. */
  OFF,

  /** If it is possible. */
  AUTO;

  @Override
  public String toString() {
    return name().toLowerCase(java.util.Locale.ROOT);
  }
}
