package dev.tidemark.bench.duel;

/** What is measured of a migration; less is better, but of pages a second. */
public enum Measure {
  /** From the migration's start to its end at the source, as the contestant itself says. */
  TOTAL("total", "ms"),
  /** While the guest ran nowhere, as the contestant itself says. */
  DOWNTIME("downtime", "ms"),
  /** Of the total: reading all memory at both ends to compare it; QEMU does no such thing. */
  DIGESTS("digests, part of total", "ms"),
  /** From the migration's start to the first page; of QEMU, its setup time. */
  FIRST_PAGE("to the first page", "ms"),
  /** Bytes sent. */
  BYTES("bytes sent", "MB"),
  /** How many of the pages sent were zero. */
  ZERO_PAGES("zero pages of those sent", "%"),
  /** CPU time of both ends' processes during the migration, for 10^9 bytes of RAM. */
  CPU("CPU, both ends", "s/GB"),
  /** From the start of the first process to the end of the last, without pauses for measuring. */
  WHOLE("processes' time", "s"),
  /** CPU time of those processes. */
  WHOLE_CPU("processes' CPU", "s"),
  /** The guest's pace before. */
  PAGES_BEFORE("guest before", "pages/s"),
  /** The guest's pace from the migration's start to its stop. */
  PAGES_DURING("guest during", "pages/s"),
  /** The guest's pace at the destination. */
  PAGES_AFTER("guest after", "pages/s"),
  /** The longest that 64 pages took during the migration, from when the pace allowed them. */
  STALL("guest's longest stall", "ms");

  private final String title;
  private final String unit;

  Measure(String title, String unit) {
    this.title = title;
    this.unit = unit;
  }

  /** For people. */
  public String title() {
    return title;
  }

  /** For people. */
  public String unit() {
    return unit;
  }
}
