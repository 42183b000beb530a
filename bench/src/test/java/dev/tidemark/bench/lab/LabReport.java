package dev.tidemark.bench.lab;

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicContainer;
import org.junit.jupiter.api.DynamicNode;
import org.junit.jupiter.api.DynamicTest;
import org.opentest4j.AssertionFailedError;
import org.opentest4j.TestAbortedException;

/** What {@link LabRunner} wrote inside the lab, as tests of this JVM. */
final class LabReport {
  static final int STARTED = 1;
  static final int FINISHED = 2;
  static final int DONE = 3;

  private static final class Node {
    final String parent;
    final boolean test;
    final String name;
    final List<Node> children = new ArrayList<>();
    String status = "";
    String message = "";

    Node(String parent, boolean test, String name) {
      this.parent = parent;
      this.test = test;
      this.name = name;
    }
  }

  private final Map<String, Node> nodes = new HashMap<>();
  private final List<Node> roots = new ArrayList<>();
  private boolean done;

  private LabReport() {}

  /** Reads as much of the report as there is; no file is an empty report. */
  static LabReport read(Path file) throws IOException {
    LabReport report = new LabReport();
    if (Files.exists(file)) {
      try (DataInputStream in =
          new DataInputStream(new BufferedInputStream(Files.newInputStream(file)))) {
        while (!report.done) {
          report.event(in);
        }
      } catch (EOFException e) {
        // The lab crashed: done stays false.
      }
    }
    return report;
  }

  private void event(DataInputStream in) throws IOException {
    int event = in.readUnsignedByte();
    switch (event) {
      case STARTED -> {
        String id = in.readUTF();
        Node node = new Node(in.readUTF(), in.readUTF().equals("test"), in.readUTF());
        nodes.put(id, node);
        Node parent = nodes.get(node.parent);
        (parent == null ? roots : parent.children).add(node);
      }
      case FINISHED -> {
        Node node = nodes.get(in.readUTF());
        node.status = in.readUTF();
        node.message = in.readUTF();
      }
      case DONE -> done = true;
      default -> throw new IOException("event " + event + " in the lab's report");
    }
  }

  /** Whether all tests ran to their end. */
  boolean isComplete() {
    return done;
  }

  /** How many tests were begun. */
  long tests() {
    return nodes.values().stream().filter(node -> node.test).count();
  }

  /**
   * Every test, in the containers that it had.
   *
   * @param skipsFail whether a test that was skipped inside counts as failed
   */
  Stream<DynamicNode> asTests(boolean skipsFail) {
    return roots.stream().flatMap(engine -> asTests(engine.children, "", skipsFail));
  }

  private static Stream<DynamicNode> asTests(List<Node> nodes, String path, boolean skipsFail) {
    return nodes.stream().map(node -> asTest(node, path, skipsFail));
  }

  private static DynamicNode asTest(Node node, String path, boolean skipsFail) {
    String name = path + node.name;
    DynamicTest outcome =
        DynamicTest.dynamicTest(
            node.name, () -> replay(name, node.status, node.message, skipsFail));
    if (node.test) {
      return outcome;
    }
    Stream<DynamicNode> children = asTests(node.children, name + " > ", skipsFail);
    // A container's own failure (its set-up, say) has no test to show itself in.
    return DynamicContainer.dynamicContainer(
        node.name,
        node.status.equals("SUCCESSFUL") ? children : Stream.concat(children, Stream.of(outcome)));
  }

  private static void replay(String name, String status, String message, boolean skipsFail) {
    Error failed =
        switch (status) {
          case "SUCCESSFUL" -> null;
          case "ABORTED" ->
              skipsFail ? failure("skipped in the lab: " + name + ": " + message) : null;
          case "FAILED" -> failure("in the lab: " + name + ": " + message);
          default -> failure("the lab ended during " + name);
        };
    if (failed != null) {
      throw failed;
    }
    if (status.equals("ABORTED")) {
      throw new TestAbortedException(name + ": " + message);
    }
  }

  private static Error failure(String message) {
    Error failure = new AssertionFailedError(message);
    // Where this JVM read the report says nothing; the message has the lab's own trace.
    failure.setStackTrace(new StackTraceElement[0]);
    return failure;
  }
}
