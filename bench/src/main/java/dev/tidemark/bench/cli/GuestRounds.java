package dev.tidemark.bench.cli;

import dev.tidemark.bench.guest.SelfCheckingGuest;
import dev.tidemark.bench.guest.Throughput;
import dev.tidemark.engine.migrate.Progress;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Consumer;

/**
 * What the guest pays for its migration: how fast it went before, in each round and at the
 * destination, and its longest stalls. A round begins when the one before has arrived, so that its
 * sync is its own; the last ends with the guest's stop.
 */
final class GuestRounds implements Consumer<Progress> {
  private static final long ENOUGH_PAGES = 512;
  private static final int MAX_TIMES_BEFORE = 5;

  private final SelfCheckingGuest guest;
  private final Consumer<Progress> next;
  private final List<Throughput> rounds = new ArrayList<>();
  private Throughput before = Throughput.NONE;
  private Throughput round = Throughput.NONE;

  /** When the migration began: listeners are told late, never early. */
  private long start = Long.MAX_VALUE;

  /**
   * @param next is told the same
   */
  GuestRounds(SelfCheckingGuest guest, Consumer<Progress> next) {
    this.guest = guest;
    this.next = next;
  }

  /**
   * Measures how fast the guest is undisturbed, in a short time; in a longer one if it does not do
   * enough in that.
   *
   * @param millis the short time
   * @throws InterruptedException if the thread was interrupted
   */
  void measureBefore(long millis) throws InterruptedException {
    guest.throughput(System.nanoTime());
    for (int i = 0; i < MAX_TIMES_BEFORE && before.pages() < ENOUGH_PAGES; i++) {
      Thread.sleep(millis);
      before = before.plus(guest.throughput(System.nanoTime()));
    }
  }

  @Override
  public void accept(Progress progress) {
    synchronized (this) {
      start = Math.min(start, System.nanoTime() - progress.elapsedNanos());
      round = round.plus(guest.throughput(start + progress.elapsedNanos()));
      if (progress.phase() == Progress.Phase.ARRIVED) {
        endRound();
      }
    }
    next.accept(progress);
  }

  private void endRound() {
    rounds.add(round);
    round = Throughput.NONE;
  }

  /** The migration has ended; the guest has stopped or is free again. */
  synchronized void end() {
    round = round.plus(guest.throughput(System.nanoTime()));
    endRound();
  }

  private Throughput during() {
    return rounds.stream().reduce(Throughput.NONE, Throughput::plus);
  }

  private Double slowdown(Throughput throughput) {
    double slowdown = 1 - throughput.pagesPerSecond() / before.pagesPerSecond();
    return Double.isNaN(slowdown) ? null : Math.round(slowdown * 1e4) / 1e4;
  }

  private static Long rounded(double value) {
    return Double.isNaN(value) ? null : Math.round(value);
  }

  private static double millis(long nanos) {
    return Math.round(nanos / 1e3) / 1e3;
  }

  /**
   * Adds all of it to a summary.
   *
   * @param after at the destination, null if that is not known
   */
  synchronized void put(Map<String, Object> summary, Throughput after) {
    Throughput during = during();
    summary.put("guestPagesPerSecondBefore", rounded(before.pagesPerSecond()));
    summary.put("guestNanosPerPageBefore", rounded(before.nanosPerPage()));
    summary.put("guestLongestStallMillisBefore", millis(before.longestStallNanos()));
    summary.put("guestPagesPerSecond", rounded(during.pagesPerSecond()));
    summary.put("guestNanosPerPage", rounded(during.nanosPerPage()));
    summary.put("guestLongestStallMillis", millis(during.longestStallNanos()));
    summary.put("guestSlowdown", slowdown(during));
    List<Map<String, Object>> list = new ArrayList<>();
    for (Throughput one : rounds) {
      Map<String, Object> map = new LinkedHashMap<>();
      map.put("millis", millis(one.runNanos()));
      map.put("pagesPerSecond", rounded(one.pagesPerSecond()));
      map.put("nanosPerPage", rounded(one.nanosPerPage()));
      map.put("longestStallMillis", millis(one.longestStallNanos()));
      map.put("slowdown", slowdown(one));
      list.add(map);
    }
    summary.put("guestRounds", list);
    summary.put("guestPagesPerSecondAfter", after == null ? null : rounded(after.pagesPerSecond()));
    summary.put(
        "guestLongestStallMillisAfter", after == null ? null : millis(after.longestStallNanos()));
  }

  /** All of it in one line. */
  synchronized String line() {
    Throughput during = during();
    return String.format(
        Locale.ROOT,
        "%.0f pages/s before, %.0f during, longest stall %.1f ms",
        before.pagesPerSecond(),
        during.pagesPerSecond(),
        during.longestStallNanos() / 1e6);
  }
}
