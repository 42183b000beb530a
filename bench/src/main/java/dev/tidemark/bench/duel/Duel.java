package dev.tidemark.bench.duel;

import dev.tidemark.bench.qemu.QemuBinary;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BiConsumer;

/**
 * Tidemark's migration beside QEMU's, process pair by process pair, in turn, so that a machine that
 * drifts hurts all alike.
 */
public final class Duel {
  private final QemuBinary qemu;
  private final Match match;
  private final List<Integer> channels;
  private final int busy;

  /**
   * @param qemu the rival
   * @param channels one rival for each: 1 for QEMU's one stream, more for multifd
   * @param busy how many processes spin beside the migrations
   */
  public Duel(QemuBinary qemu, Match match, List<Integer> channels, int busy) {
    this.qemu = qemu;
    this.match = match;
    this.channels = channels;
    this.busy = busy;
  }

  /**
   * Measures all.
   *
   * @param samples of each contestant
   * @param listener told of each sample, with the contestant's name
   * @return rival by rival, each measure that is known of either side
   * @throws IllegalStateException if a migration fails
   * @throws InterruptedException if the thread was interrupted
   */
  public List<Row> run(int samples, BiConsumer<String, Sample> listener)
      throws InterruptedException {
    try (Scratch scratch = new Scratch()) {
      List<Contestant> contestants = contestants(scratch);
      return rows(contestants, sample(contestants, samples, listener));
    }
  }

  private List<Contestant> contestants(Scratch scratch) throws InterruptedException {
    double ticks = GuestClock.ticksPerSecond(qemu.path(), scratch);
    List<Contestant> contestants = new ArrayList<>();
    contestants.add(new TidemarkContestant(match, scratch));
    for (int count : channels) {
      contestants.add(new QemuContestant(qemu.path(), count, match, ticks, scratch));
    }
    return contestants;
  }

  /** Each contestant's samples; another one begins each time. */
  private List<List<Sample>> sample(
      List<Contestant> contestants, int samples, BiConsumer<String, Sample> listener)
      throws InterruptedException {
    List<List<Sample>> taken = new ArrayList<>();
    contestants.forEach(_ -> taken.add(new ArrayList<>()));
    try (Busy spinning = new Busy(busy)) {
      for (int i = 0; i < samples; i++) {
        for (int j = 0; j < contestants.size(); j++) {
          int next = (i + j) % contestants.size();
          Sample sample = contestants.get(next).migrate();
          taken.get(next).add(sample);
          listener.accept(contestants.get(next).name(), sample);
        }
      }
      if (spinning.running() != busy) {
        throw new IllegalStateException(
            "of " + busy + " spinning processes only " + spinning.running() + " were left");
      }
    }
    return taken;
  }

  private static List<Row> rows(List<Contestant> contestants, List<List<Sample>> taken) {
    List<Row> rows = new ArrayList<>();
    for (int i = 1; i < contestants.size(); i++) {
      for (Measure measure : Measure.values()) {
        Row row = Row.of(measure, taken.getFirst(), contestants.get(i).name(), taken.get(i));
        if (row.isKnown()) {
          rows.add(row);
        }
      }
    }
    return rows;
  }
}
