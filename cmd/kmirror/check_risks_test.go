package main

import (
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// answering has a cluster answer all requests of a key so.
func answering(c *kfake.Cluster, key kmsg.Key, answer func(req kmsg.Request) kmsg.Response) {
	c.ControlKey(key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		response := answer(req)
		return response, nil, response != nil
	})
}

func threeBrokers(t *testing.T, id string, topics ...string) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.ClusterID(id), kfake.SeedTopics(1, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// check --connect tells what a topic can lose, and what a target cannot do.
func TestCheckTellsWhatCanBeLost(t *testing.T) {
	east, west := threeBrokers(t, "east-id", "orders", "bills"), threeBrokers(t, "west-id", "east.orders")
	path := config(t, twoClustersConfig(east.ListenAddrs()[0], west.ListenAddrs()[0]))
	risky := func(req kmsg.Request) kmsg.Response {
		asked, _ := req.(*kmsg.DescribeConfigsRequest)
		resp, _ := asked.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, resource := range asked.Resources {
			answer := kmsg.NewDescribeConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = resource.ResourceType, resource.ResourceName
			for name, value := range map[string]string{"unclean.leader.election.enable": "true", "min.insync.replicas": "1"} {
				config := kmsg.NewDescribeConfigsResponseResourceConfig()
				config.Name, config.Value = name, &value
				answer.Configs = append(answer.Configs, config)
			}
			resp.Resources = append(resp.Resources, answer)
		}
		return resp
	}
	refusing := func(req kmsg.Request) kmsg.Response {
		asked, _ := req.(*kmsg.DescribeConfigsRequest)
		resp, _ := asked.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, resource := range asked.Resources {
			answer := kmsg.NewDescribeConfigsResponseResource()
			answer.ResourceType, answer.ResourceName, answer.ErrorCode = resource.ResourceType, resource.ResourceName, kerr.TopicAuthorizationFailed.Code
			resp.Resources = append(resp.Resources, answer)
		}
		return resp
	}
	kmirror(t, "", "check", "--connect", "-c", path).want(t, exitOK, "fenced")
	var refuses atomic.Bool
	answering(east, kmsg.DescribeConfigs, func(req kmsg.Request) kmsg.Response {
		if refuses.Load() {
			return refusing(req)
		}
		return risky(req)
	})
	kmirror(t, "", "check", "--connect", "-c", path).want(t, exitOK,
		"note: east->west: cluster east: 2 topics with unclean.leader.election.enable=true", "(bills, orders)", "source_truncated",
		"2 topics with several replicas and min.insync.replicas=1")

	refuses.Store(true)
	kmirror(t, "", "check", "--connect", "-c", path).want(t, exitFailure, "may not read the configs of topics", "grant DESCRIBE_CONFIGS")
}

// A target without transactions is named, and so are rights that are missing.
func TestCheckTellsWhatATargetRefuses(t *testing.T) {
	east, west := threeBrokers(t, "east-id", "orders"), threeBrokers(t, "west-id", "east.orders")
	path := config(t, twoClustersConfig(east.ListenAddrs()[0], west.ListenAddrs()[0]))
	const readOnly = 1<<3 | 1<<8 | 1<<10
	answering(west, kmsg.Metadata, func(req kmsg.Request) kmsg.Response {
		asked, _ := req.(*kmsg.MetadataRequest)
		if !asked.IncludeTopicAuthorizedOperations {
			return nil
		}
		resp, _ := asked.ResponseKind().(*kmsg.MetadataResponse)
		for _, topic := range asked.Topics {
			answer := kmsg.NewMetadataResponseTopic()
			answer.Topic, answer.AuthorizedOperations = topic.Topic, readOnly
			resp.Topics = append(resp.Topics, answer)
		}
		return resp
	})
	kmirror(t, "", "check", "--connect", "-c", path).want(t, exitFailure,
		"1 topic may not be reached with WRITE (east.orders); grant WRITE on them to kmirror's user", "ALTER_CONFIGS")
	old := threeBrokers(t, "old-id")
	answering(old, kmsg.ApiVersions, func(req kmsg.Request) kmsg.Response {
		asked, _ := req.(*kmsg.ApiVersionsRequest)
		resp, _ := asked.ResponseKind().(*kmsg.ApiVersionsResponse)
		for key, most := range map[kmsg.Key]int16{kmsg.ApiVersions: 3, kmsg.Metadata: 9, kmsg.InitProducerID: 1, kmsg.DescribeConfigs: 2} {
			answer := kmsg.NewApiVersionsResponseApiKey()
			answer.ApiKey, answer.MaxVersion = key.Int16(), most
			resp.ApiKeys = append(resp.ApiKeys, answer)
		}
		return resp
	})
	kmirror(t, "", "check", "--connect", "-c", config(t, twoClustersConfig(east.ListenAddrs()[0], old.ListenAddrs()[0]))).want(t, exitOK,
		"detection", "it offers no transactions", "fence: detect says so")
}
