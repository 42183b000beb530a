package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.engine.ChildJvm;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A migration says where the guest is, even if the heap is full by then and stays so. */
@Timeout(300)
class FullHeapTest {
  private static final int LARGEST = 1 << 16;

  /** What fills the heap: each element holds the one before. */
  private static volatile Object[] held;

  @BeforeEach
  void requireKernel() {
    String missing =
        Userfaultfd.probe()
            .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
            .or(Pagemap::missing)
            .orElse(null);
    assumeTrue(missing == null, missing);
  }

  @ParameterizedTest
  @ValueSource(strings = {"Serial", "Parallel", "G1"})
  void theSourceResumesTheGuestAndSaysSo(String collector) throws Exception {
    String output = run(Source.class, collector);
    assertTrue(output.contains("said FAILED, because"), output);
    assertTrue(output.contains("runs here: true, there: false"), output);
  }

  @ParameterizedTest
  @ValueSource(strings = {"Serial", "Parallel", "G1"})
  void theDestinationRunsTheGuestAndSaysSo(String collector) throws Exception {
    String output = run(Destination.class, collector);
    assertTrue(output.contains("told: true"), output);
    assertTrue(output.contains("runs here: false, there: true"), output);
  }

  private static String run(Class<?> program, String collector) throws Exception {
    String nativeAccess =
        ModuleLayer.boot().findModule("jdk.incubator.vector").isPresent()
            ? ChildJvm.FLAGS
            : "--enable-native-access=ALL-UNNAMED";
    ChildJvm child =
        ChildJvm.run(List.of("-Xmx48m", "-XX:+Use" + collector + "GC", nativeAccess), program);
    assertEquals(0, child.status(), child.output());
    return child.output();
  }

  /** Fills the heap to the last bytes and keeps it full. */
  private static void fill() {
    for (int length = LARGEST; length > 0; length /= 2) {
      try {
        while (true) {
          Object[] next = new Object[length];
          next[0] = held;
          held = next;
        }
      } catch (OutOfMemoryError e) {
        // No more of this size.
      }
    }
  }

  private static void end(Ends ends, String said) {
    System.out.println(said);
    System.out.println("runs here: " + ends.here.running + ", there: " + ends.there.running);
    System.exit(0);
  }

  static final class Source {
    public static void main(String[] args) {
      Ends ends = new Ends(64);
      ends.here =
          new Ends.Guest(true) {
            @Override
            public void stop() {
              super.stop();
              fill();
            }
          };
      OutgoingMigration migration = ends.outgoing(Ends.OPTIONS);
      ends.receive();
      MigrationResult result = migration.run();
      held = null;
      end(ends, "said " + result.outcome() + ", because " + result.reason());
    }
  }

  static final class Destination {
    public static void main(String[] args) {
      Ends ends = new Ends(64);
      ends.there =
          new Ends.Guest(false) {
            @Override
            public void resume() {
              super.resume();
              fill();
            }
          };
      OutgoingMigration source = ends.outgoing(Ends.OPTIONS);
      IncomingMigration migration = ends.incoming();
      CompletableFuture<MigrationResult> said = new CompletableFuture<>();
      Thread.ofPlatform().daemon().start(() -> said.complete(source.run()));
      IncomingResult result = migration.run();
      held = null;
      end(ends, "told: " + result.told() + ", " + result.problem());
    }
  }
}
