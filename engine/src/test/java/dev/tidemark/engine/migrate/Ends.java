package dev.tidemark.engine.migrate;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.ValueLayout;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** Two ends of a migration in one process, with guests that only know whether they run. */
final class Ends implements AutoCloseable {
  static final MigrationOptions OPTIONS =
      MigrationOptions.DEFAULT
          .withDowntimeLimit(Duration.ofSeconds(10))
          .withLimits(30, Duration.ofMinutes(2), AtLimit.FAIL);

  /** A guest that only knows whether it runs. */
  static class Guest implements GuestControl {
    volatile boolean running;

    Guest(boolean running) {
      this.running = running;
    }

    @Override
    public void stop() {
      running = false;
    }

    @Override
    public void resume() {
      running = true;
    }
  }

  private final Mapping memory;
  private final Mapping copy;
  private final Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
  final DirtyTracker tracker;
  Socket out = Socket.connect(listener.localAddress());
  Socket in = listener.accept();
  Guest here = new Guest(true);
  Guest there = new Guest(false);
  List<SectionHandler> handlers = List.of();
  List<StateSection> sections = List.of();
  Consumer<Progress> progress = p -> {};
  Duration idleLimit = Duration.ofSeconds(60);

  /** Every second page has content. */
  Ends(long pages) {
    memory = Mapping.anonymous(pages * Pages.SIZE);
    copy = Mapping.anonymous(pages * Pages.SIZE);
    for (long page = 0; page < pages; page += 2) {
      memory.segment().set(ValueLayout.JAVA_LONG, page * Pages.SIZE, page + 1);
    }
    tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
    tracker.add(new PagemapScanSource(tracker.logs()));
  }

  InetSocketAddress address() {
    return listener.localAddress();
  }

  /** New connections, which may lead over a relay. */
  void connect(InetSocketAddress address) {
    out.close();
    in.close();
    out = Socket.connect(address);
    in = listener.accept();
  }

  OutgoingMigration outgoing(MigrationOptions options) {
    return new OutgoingMigration(tracker, out, here, sections, options, progress);
  }

  IncomingMigration incoming() {
    return new IncomingMigration(
        "tidemark",
        List.of(new RamBlock("ram", copy.segment())),
        in,
        List.of(),
        handlers,
        there,
        idleLimit);
  }

  CompletableFuture<IncomingResult> receive() {
    return receive(incoming(), in);
  }

  static CompletableFuture<IncomingResult> receive(IncomingMigration incoming, Socket in) {
    CompletableFuture<IncomingResult> arrival = new CompletableFuture<>();
    Thread.ofPlatform()
        .daemon()
        .start(
            () -> {
              try {
                arrival.complete(incoming.run());
              } catch (Throwable e) {
                in.shutdown();
                arrival.completeExceptionally(e);
              }
            });
    return arrival;
  }

  /** Why the guest was not taken over; null if it was. */
  static Throwable failure(CompletableFuture<IncomingResult> arrival) throws Exception {
    return arrival.handle((arrived, failure) -> failure).get(60, TimeUnit.SECONDS);
  }

  boolean sameMemory() {
    return memory.segment().mismatch(copy.segment()) < 0;
  }

  @Override
  public void close() {
    tracker.close();
    out.close();
    in.close();
    listener.close();
    memory.close();
    copy.close();
  }
}
